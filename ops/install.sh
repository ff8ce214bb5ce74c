#!/bin/sh
# Install a Vessel as systemd services on this machine, or bring an installed one up to this checkout. Run it as often as
# you like: settings, keys and data that are there stay as they are.
#
#   sudo ops/install.sh [--key-file FILE] [--redis ADDRESS] [--durable] [--with EXTRA,...] [--no-start]
#
#   --key-file FILE    copy the Groq key from FILE; without it put it into /etc/vessel/credentials/groq_api_key yourself
#   --redis ADDRESS    use that Redis instead of one of its own; @ stands for user and password, as in
#                      rediss://@redis.example.org:6379/0 or sentinel://@a:26379,b:26379/vessel/0 (docs/scale-out.md)
#   --durable          the Redis of its own writes to disk before it answers (standard: once a second)
#   --with EXTRA       extras of the package, such as failover,tokenizer
#   --no-start         install, and start nothing
set -eu
umask 022

PREFIX=/opt/vessel
ETC=/etc/vessel
UNITS=/etc/systemd/system
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
source=$(dirname "$here")

say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit "${code:-3}"; }
usage() {
    sed -n '2,/^set -eu/{/^set -eu/!s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
}

key_file='' redis='' profile=standard extras='' start=yes
while [ $# -gt 0 ]; do
    case $1 in
    --key-file) [ $# -ge 2 ] || usage; key_file=$2; shift 2 ;;
    --redis) [ $# -ge 2 ] || usage; redis=$2; shift 2 ;;
    --durable) profile=durable; shift ;;
    --with) [ $# -ge 2 ] || usage; extras="[$2]"; shift 2 ;;
    --no-start) start=no; shift ;;
    *) usage ;;
    esac
done

# --- everything that could stop it half-way is looked at first
[ "$(id -u)" = 0 ] || fail "needs root: it makes users, files in /etc and /opt, and services. Nothing was changed. Run: sudo $0"
command -v systemctl >/dev/null || fail "there is no systemd here; compose.yaml runs Vessel in containers. Nothing was changed."
[ "$start" = no ] || [ -d /run/systemd/system ] || fail "systemd does not run here: use --no-start. Nothing was changed."
python=''
for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "needs Python 3.11 or newer with venv: apt-get install -y python3-venv. Nothing was changed."
if [ -z "$redis" ] && [ ! -f "$ETC/external-redis" ]; then
    [ -x /usr/bin/redis-server ] || fail "needs Redis 7 or newer: apt-get install -y redis-server, or name yours with --redis. Nothing was changed."
    major=$(/usr/bin/redis-server --version | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
    [ "${major:-0}" -ge 7 ] || fail "needs Redis 7 or newer; /usr/bin/redis-server is $major. Nothing was changed."
fi
case $redis in '' | *://@*) ;; *) code=2 fail "--redis has no @ for the user and the password. Nothing was changed." ;; esac
[ -z "$redis" ] || [ ! -f "$UNITS/vessel-redis.service" ] \
    || fail "there is a Redis of its own here, with its jobs. To move: vessel-service backup FILE, ops/uninstall.sh, then this again, vessel-service restore FILE. Nothing was changed."
[ -z "$key_file" ] || [ -r "$key_file" ] || fail "$key_file cannot be read. Nothing was changed."
[ -f "$source/pyproject.toml" ] || fail "runs from a checkout of Vessel; $source is none. Nothing was changed."

# --- users
made_user() {
    id "$1" >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir "$2" --shell /usr/sbin/nologin "$1"
}
made_user vessel /var/lib/vessel
made_user vessel-redis /var/lib/vessel-redis

# --- the program: each version in a folder of its own, so that what runs is not changed under it, and the last one is kept
version=$(cd "$source" && find pyproject.toml constraints.txt vessel workers -type f ! -name '*.pyc' -print0 | sort -z \
    | xargs -0 sha256sum | sha256sum | cut -c1-12)$(printf %s "$extras" | tr -c 'a-z\n' '-' )
release=$PREFIX/releases/$version
if [ -x "$release/bin/vessel" ] && [ -f "$release/.complete" ]; then
    say "version $version is installed already"
else
    say "installing version $version (a minute or two)"
    rm -rf "$release"
    mkdir -p "$PREFIX/releases"
    "$python" -m venv "$release"
    # A copy, because building leaves files in the source.
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    (cd "$source" && tar -cf - --exclude='__pycache__' pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md vessel workers) | tar -xf - -C "$build"
    "$release/bin/pip" install --quiet --disable-pip-version-check --no-input -c "$build/constraints.txt" "$build$extras" \
        || fail "pip could not install it; its own words stand above. What ran before still runs."
    rm -rf "$build"
    "$release/bin/vessel" --help >/dev/null || fail "what was installed does not run. What ran before still runs."
    touch "$release/.complete"
fi
previous=$(readlink "$PREFIX/venv" || true)
ln -sfn "$release" "$PREFIX/venv.new"
mv -T "$PREFIX/venv.new" "$PREFIX/venv"
for old in "$PREFIX"/releases/*; do
    [ "$old" = "$release" ] || [ "$old" = "$previous" ] || rm -rf "$old"
done
rm -rf "$PREFIX/ops.new"
mkdir -p "$PREFIX/ops.new"
cp -R "$here/." "$PREFIX/ops.new/"
rm -rf "$PREFIX/ops"
mv "$PREFIX/ops.new" "$PREFIX/ops"
ln -sfn "$PREFIX/ops/vessel_service.sh" /usr/local/bin/vessel-service

# --- settings: only where there are none
put() {
    # put FILE MODE: from standard input, unless it is there
    if [ -e "$1" ]; then cat >/dev/null; else
        mkdir -p "$(dirname "$1")"
        cat >"$1.new"
        chmod "$2" "$1.new"
        mv "$1.new" "$1"
        say "made $1"
    fi
}
put "$ETC/vessel.env" 0644 <<END
# Settings of all Vessel services: docs/settings.md. Keys and passwords are not here: $ETC/credentials.
VESSEL_DATA_DIR=/var/lib/vessel
VESSEL_LOG_FORMAT=json
END
# One file for each group of tiers that a worker serves; another group is another file, and
# systemctl enable --now vessel-worker@ITS-NAME
put "$ETC/workers/fast.env" 0644 <<END
TIERS=ultra_fast,speed_demon
CONCURRENCY=200
END
put "$ETC/workers/power.env" 0644 <<END
TIERS=balanced,power
CONCURRENCY=200
END
put "$ETC/workers/compound.env" 0644 <<END
TIERS=compound,compound_mini
CONCURRENCY=100
END
# --- keys and passwords: made once, readable by root alone; systemd hands each service a copy of its own
mkdir -p "$ETC/credentials"
chmod 0700 "$ETC/credentials"
if [ -n "$redis" ]; then
    printf '%s\n' "$redis" >"$ETC/external-redis"
fi
if [ -f "$ETC/external-redis" ]; then
    "$here/make_secrets.sh" "$ETC/credentials" "$(cat "$ETC/external-redis")"
else
    "$here/make_secrets.sh" "$ETC/credentials"
    memory=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) * 4 / 10))
    put "$ETC/redis/redis.conf" 0644 <<END
include $PREFIX/ops/redis.conf
include $PREFIX/ops/redis/$profile.conf
include $PREFIX/ops/redis/local.conf
# 80 % of what Redis may use: half of this machine's memory.
maxmemory ${memory}kb
END
    if [ "$profile" = durable ]; then
        sed -i 's|^include .*/redis/standard.conf$|include '"$PREFIX"'/ops/redis/durable.conf|' "$ETC/redis/redis.conf"
    fi
fi
if [ -n "$key_file" ]; then
    (umask 077 && cat "$key_file" >"$ETC/credentials/groq_api_key")
elif [ ! -e "$ETC/credentials/groq_api_key" ]; then
    (umask 077 && : >"$ETC/credentials/groq_api_key")
fi

# --- services
for unit in "$here"/systemd/*.service "$here"/systemd/*.target "$here"/systemd/*.path; do
    cp "$unit" "$UNITS/$(basename "$unit")"
done
if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
    mkdir -p "$UNITS/vessel-.service.d"
    cp "$here/systemd/10-backoff.conf" "$UNITS/vessel-.service.d/10-backoff.conf"
fi
# The faces may reach this machine alone, so a Redis on another one would be out of their reach.
address=$(cat "$ETC/external-redis" 2>/dev/null || true)
for face in api mcp flower; do
    open=$UNITS/vessel-$face.service.d/10-redis-elsewhere.conf
    case $address in
    '' | unix://* | *@localhost[:/]* | *@127.*)
        rm -f "$open"
        rmdir "$(dirname "$open")" 2>/dev/null || true
        ;;
    *)
        mkdir -p "$(dirname "$open")"
        cat >"$open" <<END
# Made by install.sh --redis. To close it again: IPAddressDeny=any and the addresses of Redis and of your name server as
# IPAddressAllow=, in a drop-in of your own (systemctl edit vessel-$face).
[Service]
IPAddressDeny=
IPAddressAllow=
END
        ;;
    esac
done
enabled='vessel.target vessel-api.service vessel-scheduler.service vessel-flower.service vessel-mcp.service vessel-check.service vessel-credentials.path'
if [ -f "$ETC/external-redis" ]; then
    # Services name it as what they want, so it must not be there to be started.
    rm -f "$UNITS/vessel-redis.service"
else
    enabled="$enabled vessel-redis.service"
fi
for group in "$ETC"/workers/*.env; do
    enabled="$enabled vessel-worker@$(basename "$group" .env).service"
done
# shellcheck disable=SC2086  # one word for each unit
systemctl --quiet enable $enabled
if [ "$start" = yes ]; then
    systemctl daemon-reload
fi
if [ ! -s "$ETC/credentials/groq_api_key" ]; then
    say "installed. No Groq key yet: write it into $ETC/credentials/groq_api_key (only root reads it), then"
    say "  systemctl start vessel.target"
    exit 0
fi
if [ "$start" = no ]; then
    say "installed, not started: systemctl start vessel.target, or the next boot"
    exit 0
fi
if [ -n "$previous" ] && [ "$previous" != "$release" ] && systemctl --quiet is-active vessel.target; then
    # One after another: what is in the others' hands goes on meanwhile. Workers first: what a new producer may send finds
    # somebody who knows it.
    # shellcheck disable=SC2046  # one word for each group
    "$here/replace_worker.sh" $(for group in "$ETC"/workers/*.env; do basename "$group" .env; done)
    for unit in $enabled; do
        case $unit in vessel.target | vessel-redis.service | *.path | vessel-check.service | vessel-worker@*) continue ;; esac
        say "restarting $unit; it ends what it has begun"
        systemctl restart "$unit"
    done
    verb=restart
else
    # A check that has ended well stands as it is when the target is started; one that has not is run by that.
    verb=start
    ! systemctl --quiet is-active vessel-check.service || verb=restart
    systemctl start vessel.target
fi
say "started; vessel-check looks whether it is ready"
systemctl "$verb" vessel-check.service 2>/dev/null || true
say "$(systemctl show -p StatusText --value vessel-check.service)"
say "look again: $PREFIX/ops/verify_boot.sh. Others: systemctl status 'vessel-*'; journalctl -u 'vessel-*' -f"
