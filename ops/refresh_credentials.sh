#!/bin/sh
# Bring a changed Groq key to a running service, without a restart: refresh_credentials.sh UNIT, or --all for all of them.
# systemd gives a service a copy of its credentials when it starts, on a mount that is read-only from then on; the same
# memory is mounted once more here, writable, for as long as it takes to put the new file in the old one's place.
# The process reads the file again when it has changed (GROQ_API_KEY_FILE). systemd 258 does this itself (RefreshOnReload=).
set -eu
umask 077
KEY=/etc/vessel/credentials/groq_api_key

refresh() {
    held=/run/credentials/$1
    [ -e "$held/groq_api_key" ] || return 0
    cmp -s "$KEY" "$held/groq_api_key" && return 0
    writable=$held
    if ! touch "$held/.writable" 2>/dev/null; then
        writable=$(mktemp -d)
        mount --bind "$held" "$writable"
        mount -o remount,rw,bind "$writable"
    fi
    rm -f "$writable/.writable"
    # A copy with the owner and the rights of the old file takes its place in one step.
    cp -a "$writable/groq_api_key" "$writable/.groq_api_key.new"
    cat "$KEY" >"$writable/.groq_api_key.new"
    mv -f "$writable/.groq_api_key.new" "$writable/groq_api_key"
    if [ "$writable" != "$held" ]; then
        umount "$writable"
        rmdir "$writable"
    fi
    echo "$1 has the new key"
}

[ $# -eq 1 ] || { echo "refresh_credentials: name a unit, or --all" >&2; exit 2; }
[ -s "$KEY" ] || { echo "refresh_credentials: $KEY holds no key; the services keep the one they have" >&2; exit 1; }
if [ "$1" = --all ]; then
    for folder in /run/credentials/vessel-*.service; do
        [ ! -d "$folder" ] || refresh "$(basename "$folder")"
    done
    # What the last check says of the key is of the old one.
    ! systemctl --quiet is-active vessel.target || systemctl --no-block restart vessel-check.service
else
    refresh "$1"
fi
