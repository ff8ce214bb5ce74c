#!/bin/sh
# Replace workers by those of the version that is installed, with no moment in which nobody serves a group's tiers: a
# stand-in of the new version takes jobs before the old worker is told to drain, and until the new one takes them.
# Where the stand-in does not come up nothing is changed: the old worker goes on. Interrupted, the stand-in goes as soon as
# the worker is there.
#
#   sudo ops/replace_worker.sh GROUP...
set -eu

UNITS=/etc/systemd/system
RUN=/run/systemd/system
say() { printf 'replace_worker: %s\n' "$*"; }
fail() { printf 'replace_worker: %s\n' "$*" >&2; exit "${code:-1}"; }

[ $# -gt 0 ] || { sed -n '2,/^set -eu/{/^set -eu/!s/^# \{0,1\}//p;}' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || code=3 fail "needs root. Nothing was changed. Run: sudo $0 $*"
[ -f "$UNITS/vessel-worker@.service" ] || code=3 fail "there are no Vessel services here: ops/install.sh makes them. Nothing was changed."
for group in "$@"; do
    [ -f "/etc/vessel/workers/$group.env" ] || code=2 fail "there is no group $group: /etc/vessel/workers/ has none of that name. Nothing was changed."
done

exec 8>/run/vessel-replace.lock
flock -n 8 || {
    say "another run is at work; waiting until it has ended"
    flock -w 900 8 || code=3 fail "the other run has not ended in 15 minutes. Nothing was changed."
}

# The unit is the worker's own with its drop-ins, but for what it is called; it is gone with the next boot at the latest.
standing=''
remove() {
    if [ -n "$standing" ]; then
        # systemd goes on with what it was told last; until that is done somebody serves.
        say "interrupted; the stand-in of $standing ends when its worker is there"
        systemd-run --quiet --collect /bin/sh -c "systemctl start vessel-worker@$standing; systemctl stop vessel-standin@$standing"
        return
    fi
    rm -rf "$RUN/vessel-standin@.service" "$RUN/vessel-standin@.service.d" "$RUN"/vessel-standin@*.service.d
    systemctl daemon-reload
}
trap remove EXIT
# Without these sh would end at once and leave the stand-in.
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -p "$RUN"
sed -e 's/^Description=.*/Description=Vessel worker that stands in while that of group %i is replaced/' -e '/^\[Install\]/,$d' \
    "$UNITS/vessel-worker@.service" >"$RUN/vessel-standin@.service"
for folder in "$UNITS"/vessel-worker@*.service.d; do
    [ ! -d "$folder" ] || cp -R "$folder" "$RUN/vessel-standin@${folder#"$UNITS/vessel-worker@"}"
done
systemctl daemon-reload

for group in "$@"; do
    if ! systemctl --quiet is-active "vessel-worker@$group"; then
        say "starting the worker of $group; none was active"
        systemctl restart "vessel-worker@$group" || fail "the worker of $group does not come up. Look: journalctl -u vessel-worker@$group"
        # One that a run before has left.
        systemctl stop "vessel-standin@$group" 2>/dev/null || true
        continue
    fi
    say "replacing the worker of $group; it ends what it has begun, and a stand-in takes what comes"
    standing=$group
    # Each returns once the process has said that it takes jobs. Restarted, as one that was left may be of any version.
    systemctl restart "vessel-standin@$group" || {
        systemctl stop "vessel-standin@$group" || true
        standing=''
        fail "the new version does not come up; the old worker of $group serves on. Look: journalctl -u vessel-standin@$group. Then: $0 $*"
    }
    systemctl restart "vessel-worker@$group" \
        || { trap - EXIT; fail "the new worker of $group does not come up; its stand-in serves. Look: journalctl -u vessel-worker@$group"; }
    systemctl stop "vessel-standin@$group"
    standing=''
done
