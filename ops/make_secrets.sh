#!/bin/sh
# Make what the processes of a Vessel prove themselves with, each once: run again, it makes only what is missing.
#
#   ops/make_secrets.sh [--replace USER]... FOLDER [ADDRESS]
#   ops/make_secrets.sh [--replace USER]... --compose      the same as ./secrets redis://@redis:6379/0, for compose.yaml
#
# ADDRESS is how clients reach Redis, with @ where the user and the password go:
#   unix://@/run/vessel-redis/redis.sock (default)   redis://@redis:6379/0   rediss://@redis.example.org:6379/0?ssl_ca_certs=...
#   sentinel://@a:26379,b:26379,c:26379/vessel/0
# FOLDER gets users.acl (hashes only), redis_url_{api,worker,flower,operator}, redis_password_{metrics,replica,
# sentinel}, flower_auth (logins) and api_key (the first key of the REST and MCP face). --replace makes a user's password
# anew; restart Redis and that user's processes then. groq_api_key is yours to put there.
set -eu
umask 077

usage() {
    sed -n '2,/^set -eu/{/^set -eu/!s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
}

replace=''
mode=0600
while [ $# -gt 0 ]; do
    case $1 in
    --replace) [ $# -ge 2 ] || usage; replace="$replace $2 "; shift 2 ;;
    --compose)
        # Compose mounts single files with the rights they have here, and containers run as a user of their own: readable
        # files in a folder that nobody else may enter.
        mode=0644
        shift
        [ $# -eq 0 ] || usage
        set -- "$(dirname -- "$0")/../secrets" redis://@redis:6379/0
        break
        ;;
    -*) usage ;;
    *) break ;;
    esac
done
[ $# -ge 1 ] && [ $# -le 2 ] || usage
folder=$1
address=${2:-unix://@/run/vessel-redis/redis.sock}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case $address in
*://@*) ;;
*) echo "make_secrets: $address has no @ for the user and the password, as in redis://@redis:6379/0" >&2; exit 2 ;;
esac

mkdir -p "$folder"
new=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT

password() {
    # 32 bytes of the system's generator, in characters that an address can hold as they are.
    head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n'
}

kept() {
    # The password that a user has already, out of the address that holds it.
    case $replace in *" $1 "*) return 1 ;; esac
    [ -s "$2" ] || return 1
    case $1 in
    metrics | replica | sentinel) cat "$2" ;;
    *) sed -n "s|^[a-z]*://$1:\([0-9a-f]\{64\}\)@.*|\1|p" "$2" | grep . ;;
    esac
}

cp "$here/users.acl" "$new/users.acl"
for user in api worker flower operator metrics replica sentinel; do
    case $user in metrics | replica | sentinel) file=redis_password_$user ;; *) file=redis_url_$user ;; esac
    secret=$(kept "$user" "$folder/$file") || secret=$(password)
    hash=$(printf %s "$secret" | sha256sum | cut -d' ' -f1)
    upper=$(printf %s "$user" | tr '[:lower:]' '[:upper:]')
    sed -i "s/^user $user on #$upper /user $user on #$hash /" "$new/users.acl"
    case $file in
    redis_password_*) printf '%s\n' "$secret" >"$new/$file" ;;
    # With the shell's own words alone, here and above: the arguments of a program are there for everybody to read.
    *) printf '%s://%s:%s@%s\n' "${address%%://@*}" "$user" "$secret" "${address#*://@}" >"$new/$file" ;;
    esac
done
if [ ! -s "$folder/flower_auth" ]; then
    printf 'vessel:%s\nprometheus:%s\n' "$(password)" "$(password)" >"$new/flower_auth"
fi
if [ ! -s "$folder/api_key" ]; then
    printf 'vsl_%s\n' "$(password)" >"$new/api_key"
fi
if [ "$mode" = 0644 ] && [ ! -s "$folder/grafana_password" ]; then
    password >"$new/grafana_password"
fi
# Comments are not allowed in a file that Redis reads.
sed -i '/^#/d' "$new/users.acl"
for file in "$new"/*; do
    name=$(basename "$file")
    # In place, where it exists: what mounts the file goes on seeing it.
    if [ -e "$folder/$name" ]; then
        cmp -s "$file" "$folder/$name" || cat "$file" >"$folder/$name"
    else
        mv "$file" "$folder/$name"
    fi
    chmod "$mode" "$folder/$name"
done
