#!/bin/sh
# Verify that the vessel has come up, and say so: the seed's verify_boot.sh on top of `vessel check --boot`.
#
# usage: verify_boot.sh [options of `vessel check`]        e.g. verify_boot.sh --deadline 60 --no-inference
#
# The environment is that of the services: what is set already, else what VESSEL_ENV_FILE names (default
# /etc/vessel/vessel.env), and key and Redis of /etc/vessel/credentials, each where it can be read. Where systemd runs,
# services that are enabled have to be active, and the faces among them have to answer.
#
# exit code   first thing that failed
#   0         nothing: the readiness message was printed
#   2         bad use, or settings that hold faults
#   3         no `vessel` command
#   10        key_missing                      there is no key, or its file holds none
#   11        key_refused, no_models           Groq is reached, and refuses the key or lists nothing for it
#   12        groq_unreachable, groq_failing   Groq gave no answer, or a fault
#   13        redis_unreachable, redis_refused, redis_not_set
#   14        redis_not_persistent, redis_evicts, redis_full
#   15        worker_missing                   a tier has no live worker
#   16        sweeper_missing                  nobody feeds batches and rescues jobs
#   17        api_down, api_unhealthy
#   18        mcp_down, mcp_unhealthy, flower_down, flower_unhealthy
#   19        maintenance_on
#   20        inference_failed                 the test call through the queue gave no answer
#   21        service_inactive                 an enabled unit is not active
#   1         anything else
#   130       interrupted
set -u

VESSEL=${VESSEL:-$(command -v vessel || echo /opt/vessel/venv/bin/vessel)}
ENV_FILE=${VESSEL_ENV_FILE:-/etc/vessel/vessel.env}
# Ours, and no setting of Vessel's: it reports names that it does not know.
unset VESSEL_ENV_FILE

if [ -r "$ENV_FILE" ]; then
  # Lines of NAME=value as systemd reads them; nothing in them is run, and what is set already wins.
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in '' | '#'* | ';'*) continue ;; esac
    name=${line%%=*}
    value=${line#*=}
    case $name in '' | *[!A-Za-z0-9_]* | [0-9]*) continue ;; esac
    case $value in \"*\") value=${value#\"} value=${value%\"} ;; \'*\') value=${value#\'} value=${value%\'} ;; esac
    eval "known=\${$name+set}"
    # shellcheck disable=SC2154  # set by the eval
    [ -n "$known" ] || export "$name=$value"
  done <"$ENV_FILE"
fi

# What systemd hands its services, for root who runs this beside them.
CREDENTIALS=/etc/vessel/credentials
if [ -z "${GROQ_API_KEY:-}${GROQ_API_KEY_FILE:-}" ] && [ -r $CREDENTIALS/groq_api_key ]; then
  export GROQ_API_KEY_FILE=$CREDENTIALS/groq_api_key
fi
if [ -z "${VESSEL_REDIS_URL:-}" ] && [ -r $CREDENTIALS/redis_url_operator ]; then
  VESSEL_REDIS_URL=$(cat $CREDENTIALS/redis_url_operator)
  export VESSEL_REDIS_URL
fi

command -v "$VESSEL" >/dev/null 2>&1 || {
  echo "❌ There is no command $VESSEL. Install Vessel, or name it: VESSEL=/opt/vessel/bin/vessel $0" >&2
  exit 3
}

expect=api
inactive=
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
  for unit in $(systemctl list-unit-files --no-legend --plain --state=enabled 'vessel-*.service' 'vessel-*.timer' 2>/dev/null |
    while read -r found _; do echo "$found"; done); do
    case $unit in
      *@.service) continue ;; # a template; its instances are listed by themselves
      vessel-mcp.service) expect="$expect,mcp" ;;
      vessel-flower.service) expect="$expect,flower" ;;
      vessel-check.service | vessel-boot*.service | vessel-verify*.service) continue ;; # what runs this script
    esac
    case $(systemctl is-active "$unit" 2>/dev/null) in
      active | activating | reloading) ;;
      *) inactive="$inactive $unit" ;;
    esac
  done
fi

# The steps go to the reader as they are; of the document only the first code is looked at.
document=$(mktemp "${TMPDIR:-/tmp}/vessel-boot.XXXXXX") || exit 1
trap 'rm -f "$document"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$VESSEL" check --boot --expect "$expect" --codes "$document" "$@"
code=$?

if [ "$code" -eq 0 ]; then
  [ -z "$inactive" ] && exit 0
  echo "❌ service_inactive:$inactive" >&2
  echo "   → systemctl status$inactive" >&2
  exit 21
fi
[ -z "$inactive" ] || echo "❌ service_inactive:$inactive" >&2
case $code in 2 | 130) exit "$code" ;; esac
first=
read -r first <"$document" || :
case $first in
  key_missing) exit 10 ;;
  key_refused | no_models) exit 11 ;;
  groq_unreachable | groq_failing) exit 12 ;;
  redis_unreachable | redis_refused | redis_not_set) exit 13 ;;
  redis_not_persistent | redis_evicts | redis_full) exit 14 ;;
  worker_missing) exit 15 ;;
  sweeper_missing) exit 16 ;;
  api_down | api_unhealthy) exit 17 ;;
  mcp_down | mcp_unhealthy | flower_down | flower_unhealthy) exit 18 ;;
  maintenance_on) exit 19 ;;
  inference_failed) exit 20 ;;
  *) exit 1 ;;
esac
