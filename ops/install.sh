#!/bin/sh
# Install a Vessel as systemd services on this machine, or bring an installed one up to this checkout. Run it as often as
# you like: settings, keys and data that are there stay as they are, and units that you have disabled stay disabled. A run
# that fails or is interrupted leaves the last version in place or is finished by the next run.
#
#   sudo ops/install.sh [--key-file FILE] [--redis ADDRESS [--keep-redis]] [--durable] [--with EXTRA,...] [--no-start]
#
#   --key-file FILE    copy the Groq key from FILE; without it put it into /etc/vessel/credentials/groq_api_key yourself
#   --redis ADDRESS    use that Redis instead of one of its own; @ stands for user and password, as in
#                      rediss://@redis.example.org:6379/0 or sentinel://@a:26379,b:26379/vessel/0 (docs/scale-out.md)
#   --keep-redis       with --redis: the Redis of this machine goes on, as one of those that ADDRESS leads to
#   --durable          the Redis of its own writes to disk before it answers (standard: once a second)
#   --with EXTRA       extras of the package, such as failover,tokenizer; kept for later runs, '' takes them away
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

key_file='' redis='' keep_redis=no profile=standard start=yes
extras=$(cat "$ETC/extras" 2>/dev/null || true)
while [ $# -gt 0 ]; do
    case $1 in
    --key-file) [ $# -ge 2 ] || usage; key_file=$2; shift 2 ;;
    --redis) [ $# -ge 2 ] || usage; redis=$2; shift 2 ;;
    --keep-redis) keep_redis=yes; shift ;;
    --durable) profile=durable; shift ;;
    --with) [ $# -ge 2 ] || usage; extras=$2; shift 2 ;;
    --no-start) start=no; shift ;;
    *) usage ;;
    esac
done
[ "$keep_redis" = no ] || [ -n "$redis" ] || usage

# --- everything that could stop it half-way is looked at first
[ "$(id -u)" = 0 ] || fail "needs root: it makes users, files in /etc and /opt, and services. Nothing was changed. Run: sudo $0"
command -v systemctl >/dev/null || fail "there is no systemd here; compose.yaml runs Vessel in containers. Nothing was changed."
booted=yes
[ -d /run/systemd/system ] || booted=no
[ "$start" = no ] || [ "$booted" = yes ] || fail "systemd does not run here: use --no-start. Nothing was changed."
python=''
for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "needs Python 3.11 or newer with venv: apt-get install -y python3-venv. Nothing was changed."
own=yes
if [ "$keep_redis" = no ] && { [ -n "$redis" ] || [ -f "$ETC/external-redis" ]; }; then own=no; fi
if [ "$own" = yes ]; then
    [ -x /usr/bin/redis-server ] || fail "needs Redis 7 or newer: apt-get install -y redis-server, or name yours with --redis. Nothing was changed."
    major=$(/usr/bin/redis-server --version | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
    [ "${major:-0}" -ge 7 ] || fail "needs Redis 7 or newer; /usr/bin/redis-server is $major. Nothing was changed."
fi
case $redis in '' | *://@*) ;; *) code=2 fail "--redis has no @ for the user and the password. Nothing was changed." ;; esac
[ "$own" = yes ] || [ ! -f "$UNITS/vessel-redis.service" ] \
    || fail "there is a Redis of its own here, with its jobs. If $redis leads to it, add --keep-redis. To move: vessel-service backup FILE, ops/uninstall.sh, then this again, vessel-service restore FILE. Nothing was changed."
[ -z "$key_file" ] || [ -r "$key_file" ] || fail "$key_file cannot be read. Nothing was changed."
[ -f "$source/pyproject.toml" ] || fail "runs from a checkout of Vessel; $source is none. Nothing was changed."

known=$(sed -n '/^\[project.optional-dependencies\]/,/^\[/s/^\([a-z][a-z-]*\) = \[.*/\1/p' "$source/pyproject.toml")
for extra in $(printf %s "$extras" | tr , ' '); do
    printf '%s\n' "$known" | grep -qxF -- "$extra" \
        || code=2 fail "there is no extra $extra (--with, or $ETC/extras of a run before). There are: $(echo "$known" | tr '\n' ' '). Nothing was changed."
done
trap 'exit 130' INT
trap 'exit 143' TERM HUP
exec 9>/run/vessel-install.lock
flock -n 9 || {
    say "another run is at work; waiting until it has ended"
    flock -w 900 9 || fail "the other run has not ended in 15 minutes. Nothing was changed."
}

# --- users
made_user() {
    if id "$1" >/dev/null 2>&1; then
        grep -qxF "$1" "$ETC/made-users" 2>/dev/null || say "the services use the account $1, which was there"
    else
        # Noted before it is made: uninstall.sh --purge takes away these accounts and no other.
        echo "$1" >>"$ETC/made-users"
        useradd --system --user-group --no-create-home --home-dir "$2" --shell /usr/sbin/nologin "$1"
    fi
}
mkdir -p "$ETC"
made_user vessel /var/lib/vessel
made_user vessel-redis /var/lib/vessel-redis

# --- the program: each version in a folder of its own with its units and scripts, so that what runs is not changed under it
releases=$PREFIX/releases
version=$(cd "$source" && find pyproject.toml constraints.txt vessel workers ops -type f ! -name '*.pyc' ! -path 'ops/prometheus-secrets/*' \
    -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)$(printf %s "${extras:+[$extras]}" | tr -c 'a-z\n' '-')
release=$releases/$version
if [ -x "$release/bin/vessel" ] && [ -f "$release/.complete" ]; then
    say "version $version is installed already"
else
    say "installing version $version (a minute or two)"
    rm -rf "$release"
    mkdir -p "$releases"
    "$python" -m venv "$release"
    # A copy, because building leaves files in the source.
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    (cd "$source" && tar -cf - --exclude='__pycache__' pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md vessel workers) | tar -xf - -C "$build"
    "$release/bin/pip" install --quiet --disable-pip-version-check --no-input -c "$build/constraints.txt" "$build${extras:+[$extras]}" \
        || fail "pip could not install it; its own words stand above. What ran before still runs."
    rm -rf "$build"
    "$release/bin/vessel" --help >/dev/null || fail "what was installed does not run. What ran before still runs."
    mkdir "$release/ops"
    # Root's, as root runs some of it; without what somebody may have put beside it as a secret.
    (cd "$here" && tar -cf - --exclude='__pycache__' --exclude=./prometheus-secrets .) \
        | tar -xf - --no-same-owner --no-same-permissions -C "$release/ops"
    touch "$release/.complete"
fi
printf '%s\n' "$extras" >"$ETC/extras"

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
# Units that were enabled once are not again: what you disable stays so.
enabled_once() { grep -qxF "$1" "$ETC/enabled-once" 2>/dev/null; }
# One file for each group of tiers that a worker serves; another group is another file, and
# systemctl enable --now vessel-worker@ITS-NAME
group() {
    enabled_once "vessel-worker@$1.service" || printf 'TIERS=%s\nCONCURRENCY=%s\n' "$2" "$3" | put "$ETC/workers/$1.env" 0644
}
group fast ultra_fast,speed_demon 200
group power balanced,power 200
group compound compound,compound_mini 100
mkdir -p "$ETC/credentials"
chmod 0700 "$ETC/credentials"
address=$(cat "$ETC/external-redis" 2>/dev/null || cat "$ETC/redis/address" 2>/dev/null || true)
if [ -n "$redis" ] && [ "$redis" != "$address" ]; then
    # What runs has the old one.
    : >"$releases/.replacing"
    address=$redis
fi
if [ "$own" = no ]; then
    printf '%s\n' "$address" >"$ETC/external-redis"
else
    memory=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) * 4 / 10))
    put "$ETC/redis/redis.conf" 0644 <<END
include $PREFIX/ops/redis.conf
include $PREFIX/ops/redis/$profile.conf
include $PREFIX/ops/redis/local.conf
# 80 % of what Redis may use: half of this machine's memory.
maxmemory ${memory}kb
END
    if [ "$profile" = durable ] && grep -q '^include .*/redis/standard.conf$' "$ETC/redis/redis.conf"; then
        : >"$releases/.restart-redis"
        sed -i 's|^include .*/redis/standard.conf$|include '"$PREFIX"'/ops/redis/durable.conf|' "$ETC/redis/redis.conf"
    fi
    [ -z "$address" ] || printf '%s\n' "$address" >"$ETC/redis/address"
    rm -f "$ETC/external-redis"
fi
if [ -n "$key_file" ]; then
    (umask 077 && cat "$key_file" >"$ETC/credentials/groq_api_key")
elif [ ! -e "$ETC/credentials/groq_api_key" ]; then
    (umask 077 && : >"$ETC/credentials/groq_api_key")
fi

# --- the version that is started from now on: its users of Redis, its units, then its program and scripts in one step
activate() {
    # Passwords are made once, readable by root alone; systemd hands each service a copy of its own.
    "$1/ops/make_secrets.sh" "$ETC/credentials" ${address:+"$address"}
    for unit in "$1"/ops/systemd/*.service "$1"/ops/systemd/*.target "$1"/ops/systemd/*.path; do
        cp "$unit" "$UNITS/$(basename "$unit")"
    done
    # Services name it as what they want, so it must not be there to be started.
    [ "$own" = yes ] || rm -f "$UNITS/vessel-redis.service"
    if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
        mkdir -p "$UNITS/vessel-.service.d"
        cp "$1/ops/systemd/10-backoff.conf" "$UNITS/vessel-.service.d/10-backoff.conf"
    fi
    # Not made anew where it is so already: nobody is to find it missing.
    [ "$(readlink "$PREFIX/venv")" = "$1" ] || { ln -sfn "$1" "$PREFIX/venv.new" && mv -T "$PREFIX/venv.new" "$PREFIX/venv"; }
    [ "$booted" = no ] || systemctl daemon-reload
}
running=$(cat "$releases/.running" 2>/dev/null || true)
before=${running:-$(basename "$(readlink "$PREFIX/venv" || true)")}
if [ ! -L "$PREFIX/ops" ]; then
    # Scripts were beside the versions once; they are those of the last one.
    ln -sfn venv/ops "$PREFIX/ops.new"
    if [ -d "$PREFIX/ops" ]; then
        [ -z "$before" ] || [ -e "$releases/$before/ops" ] || cp -R "$PREFIX/ops" "$releases/$before/ops"
        mv "$PREFIX/ops" "$PREFIX/ops.old"
    fi
    mv -T "$PREFIX/ops.new" "$PREFIX/ops"
    rm -rf "$PREFIX/ops.old"
fi
users=$(sha256sum "$ETC/credentials/users.acl" 2>/dev/null || true)
activate "$release"
ln -sfn "$PREFIX/ops/vessel_service.sh" /usr/local/bin/vessel-service
if [ "$own" = no ] && [ -n "$users" ] && [ "$users" != "$(sha256sum "$ETC/credentials/users.acl")" ]; then
    say "this version's users of Redis have other rights: bring $ETC/credentials/users.acl to your Redis (docs/scale-out.md)"
fi
# The faces may reach this machine alone, so a Redis on another one would be out of their reach.
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
fresh=''
for unit in vessel.target vessel-api.service vessel-scheduler.service vessel-flower.service vessel-mcp.service vessel-check.service \
    vessel-credentials.path vessel-redis.service vessel-worker@fast.service vessel-worker@power.service vessel-worker@compound.service; do
    [ "$unit" != vessel-redis.service ] || [ "$own" = yes ] || continue
    enabled_once "$unit" || fresh="$fresh $unit"
done
if [ -n "$fresh" ]; then
    # shellcheck disable=SC2086  # one word for each unit
    systemctl --quiet enable $fresh
    # shellcheck disable=SC2086
    printf '%s\n' $fresh >>"$ETC/enabled-once"
fi
[ "$booted" = no ] || systemctl daemon-reload

# --- services: what runs of another version is replaced; which one runs is noted only when all of them have been
state() { [ "$booted" = yes ] && systemctl is-active "$1" || true; }
serving='' others=''
for group in "$ETC"/workers/*.env; do
    unit=vessel-worker@$(basename "$group" .env)
    case $(state "$unit") in
    active | reloading) serving="$serving ${unit#*@}" ;;
    activating | deactivating) others="$others $unit" ;;
    esac
done
# Workers first: what a new producer may send finds somebody who knows it.
services=''
for unit in vessel-scheduler vessel-api vessel-mcp vessel-flower; do
    case $(state "$unit") in
    active | reloading) services="$services $unit" ;;
    activating | deactivating) others="$others $unit" ;;
    esac
done
all_new() {
    if [ "$running" != "$version" ]; then
        [ -z "$before" ] || [ "$before" = "$version" ] || echo "$before" >"$releases/.last"
        echo "$version" >"$releases/.running.new"
        mv "$releases/.running.new" "$releases/.running"
    fi
    rm -f "$releases/.replacing"
    last=$(cat "$releases/.last" 2>/dev/null || true)
    for old in "$releases"/*; do
        [ "$old" = "$release" ] || [ "$old" = "$releases/$last" ] || rm -rf "$old"
    done
}
[ -n "$serving$services$others" ] || all_new
if [ "$start" = no ]; then
    say "installed, not started: systemctl start vessel.target, or the next boot"
    exit 0
fi
if [ ! -s "$ETC/credentials/groq_api_key" ] && [ -z "$serving$services$others" ]; then
    say "installed. No Groq key yet: write it into $ETC/credentials/groq_api_key (only root reads it), then"
    say "  systemctl start vessel.target"
    exit 0
fi
back() {
    # What ends by itself from now on is started again in the version that was there.
    if [ "$before" != "$version" ] && [ -x "$releases/$before/bin/vessel" ] && [ -d "$releases/$before/ops" ]; then
        activate "$releases/$before"
        say "version $before is what is started from now on, as before"
    fi
}
redis_differs() {
    # From what the running one was started with.
    [ ! -e "$releases/.restart-redis" ] || return 0
    cmp -s "$ETC/credentials/users.acl" /run/credentials/vessel-redis.service/users_acl || return 0
    [ "$before" != "$version" ] && [ -d "$releases/$before/ops" ] || return 1
    for file in systemd/vessel-redis.service $(sed -n "s|^include $PREFIX/ops/||p" "$ETC/redis/redis.conf"); do
        cmp -s "$releases/$before/ops/$file" "$release/ops/$file" || return 0
    done
    return 1
}
if [ "$own" = yes ] && [ "$(state vessel-redis)" = active ] && redis_differs; then
    : >"$releases/.restart-redis"
    say "restarting vessel-redis, as its users or settings have changed; callers are told to come back, work waits, nothing is lost"
    systemctl restart vessel-redis || {
        back
        ! systemctl restart vessel-redis || rm -f "$releases/.restart-redis"
        fail "Redis does not come up with the users and settings of this version. Look: journalctl -u vessel-redis. Then run this again."
    }
fi
rm -f "$releases/.restart-redis"
checked=$(state vessel-check)
if [ -n "$serving$services$others" ] && { [ "$running" != "$version" ] || [ -e "$releases/.replacing" ]; }; then
    # Until all are: whichever version comes next, this one or the one before, some are not of it.
    : >"$releases/.replacing"
    # One after another: what is in the others' hands goes on meanwhile.
    if [ -n "$serving" ]; then
        # shellcheck disable=SC2086  # one word for each group
        "$release/ops/replace_worker.sh" $serving || { back; fail "the new version was not brought to all workers: see above. Then run this again."; }
    fi
    for unit in $services; do
        say "restarting $unit; it ends what it has begun"
        systemctl restart "$unit" || {
            back
            systemctl restart "$unit" || true
            fail "the new $unit does not come up. Look: journalctl -u $unit. Then run this again."
        }
    done
    # These were not up before, so nobody waits for them to be.
    # shellcheck disable=SC2086  # one word for each unit
    [ -z "$others" ] || systemctl --no-block restart $others
fi
systemctl start vessel.target
all_new
say "started"
# A check that has ended well stands as it is when the target is started; one that has not is run by that.
if [ "$checked" = active ]; then
    systemctl restart vessel-check.service 2>/dev/null || true
elif systemctl --quiet is-enabled vessel-check.service; then
    systemctl start vessel-check.service 2>/dev/null || true
fi
status=$(systemctl show -p StatusText --value vessel-check.service)
[ -z "$status" ] || say "$status"
say "look again: $PREFIX/ops/verify_boot.sh. Others: systemctl status 'vessel-*'; journalctl -u 'vessel-*' -f"
