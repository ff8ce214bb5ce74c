#!/bin/sh
# Take the services of ops/install.sh away. Settings, keys and data stay, unless --purge takes them as well.
#
#   sudo ops/uninstall.sh [--purge]
set -eu

case ${1:-} in
'') purge=no ;;
--purge) purge=yes ;;
*) sed -n '2,/^set -eu/{/^set -eu/!s/^# \{0,1\}//p;}' "$0" >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || { echo "uninstall: needs root. Nothing was changed. Run: sudo $0" >&2; exit 3; }

units=$(cd /etc/systemd/system && ls -d vessel.target vessel-*.service vessel-*.path 2>/dev/null || true)
groups=$(find /etc/vessel/workers -name '*.env' 2>/dev/null | sed 's|.*/\(.*\)\.env$|vessel-worker@\1.service|')
if [ -d /run/systemd/system ]; then
    # Workers first: they end their calls while the rest is still there.
    # shellcheck disable=SC2086  # one word for each unit
    [ -z "$groups" ] || systemctl stop $groups || true
    systemctl stop vessel.target 2>/dev/null || true
    for unit in $units; do case $unit in *@*) ;; *) systemctl stop "$unit" 2>/dev/null || true ;; esac; done
fi
# shellcheck disable=SC2046,SC2086  # one word for each unit
[ -z "$groups$units" ] || systemctl --quiet disable $groups $(printf '%s\n' $units | grep -v @) 2>/dev/null || true
for unit in $units; do rm -f "/etc/systemd/system/$unit"; done
rm -rf /etc/systemd/system/vessel-.service.d /etc/systemd/system/vessel.target.wants /opt/vessel
rm -f /etc/vessel/enabled-once /etc/systemd/system/groq-mcp.service /etc/systemd/system/vessel-*.service.d/10-redis-elsewhere.conf
rmdir /etc/systemd/system/vessel-*.service.d 2>/dev/null || true
case $(readlink /usr/local/bin/vessel-service) in /opt/vessel/*) rm -f /usr/local/bin/vessel-service ;; esac
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl reset-failed 'vessel*' 2>/dev/null || true
fi
if [ "$purge" = yes ]; then
    # Those that install.sh has made; an account of that name that was there is somebody's.
    made=$(sort -u /etc/vessel/made-users 2>/dev/null || true)
    rm -rf /etc/vessel /var/lib/vessel /var/lib/vessel-redis
    for user in $made; do
        if id "$user" >/dev/null 2>&1; then userdel "$user"; fi
    done
    echo "uninstall: all gone, data and keys as well"
else
    echo "uninstall: gone. Kept: /etc/vessel (settings, keys), /var/lib/vessel and /var/lib/vessel-redis (jobs, usage log)"
fi
