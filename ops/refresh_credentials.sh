#!/bin/sh
# Bring a changed Groq key to a running service, without a restart: refresh_credentials.sh UNIT, or --all for all of them.
# systemd gives a service a copy of its credentials when it starts, on a mount that is read-only from then on; the same
# memory is mounted once more here, writable, for as long as it takes to put the new file in the old one's place.
# The process reads the file again when it has changed (GROQ_API_KEY_FILE). systemd 258 does this itself (RefreshOnReload=).
# With --all the others get the key even where one does not; it exits 1 then.
set -eu
umask 077
KEY=/etc/vessel/credentials/groq_api_key
HELD=/run/credentials
LOCK=/run/vessel-credentials.lock
writable='' mounted=''

# Whatever ends it: no half-written key, and no second way to a service's secrets.
restore() {
    [ -z "$writable" ] || rm -f "$writable/.writable" "$writable/.groq_api_key.new" || :
    [ -n "$mounted" ] || return 0
    umount "$mounted" 2>/dev/null || umount -l "$mounted" 2>/dev/null || :
    rmdir "$mounted" || :
}

refresh() {
    held=$HELD/$1
    [ -e "$held/groq_api_key" ] || return 0
    cmp -s "$KEY" "$held/groq_api_key" && return 0
    writable=$held
    if ! touch "$held/.writable" 2>/dev/null; then
        mounted=$(mktemp -d)
        writable=$mounted
        mount --bind "$held" "$writable"
        mount -o remount,rw,bind "$writable"
    fi
    # A copy with the owner and the rights of the old file takes its place in one step.
    cp -a "$writable/groq_api_key" "$writable/.groq_api_key.new"
    cat "$KEY" >"$writable/.groq_api_key.new"
    mv -f "$writable/.groq_api_key.new" "$writable/groq_api_key"
    echo "$1 has the new key"
}

[ $# -eq 1 ] || { echo "refresh_credentials: name a unit, or --all" >&2; exit 2; }
[ -s "$KEY" ] || { echo "refresh_credentials: $KEY holds no key; the services keep the one they have" >&2; exit 1; }
if [ "$1" = --all ]; then
    failed=''
    for folder in "$HELD"/vessel-*.service; do
        [ ! -d "$folder" ] || "$0" "$(basename "$folder")" || failed="$failed $(basename "$folder")"
    done
    # What the last check says of the key is of the old one.
    ! systemctl --quiet is-active vessel.target || systemctl --no-block restart vessel-check.service
    [ -z "$failed" ] || {
        echo "refresh_credentials: these keep the old key:$failed. Try again: systemctl reload$failed" >&2
        exit 1
    }
else
    # A reload and the path unit may come at once.
    exec 9>"$LOCK"
    flock 9
    trap restore EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    refresh "$1"
fi
