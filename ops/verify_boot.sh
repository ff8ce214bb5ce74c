#!/bin/sh
# Verify that the vessel has come up, and say so: the seed's verify_boot.sh on top of `vessel check --boot`.
#
# usage: verify_boot.sh [options of `vessel check`]        e.g. verify_boot.sh --deadline 60 --no-inference
#
# The environment is that of the services: what is set already, else what VESSEL_ENV_FILE names (default
# /etc/vessel/vessel.env), and key and Redis of /etc/vessel/credentials, which only root reads. Where systemd has the units
# of ops/install.sh, each that vessel.target starts has to be active, and the faces among them have to answer.
#
# exit code   first thing that failed
#   0         nothing: the readiness message was printed
#   2         bad use, or settings that hold faults
#   3         it could not look: no `vessel` command, or only root may
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
#   21        service_inactive                 a unit is not active, and nothing above tells why it is missed
#   1         anything else
#   130       interrupted
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/operator_env.sh"
VESSEL=${VESSEL:-$(command -v vessel || echo /opt/vessel/venv/bin/vessel)}
command -v "$VESSEL" >/dev/null 2>&1 || {
  echo "❌ There is no command $VESSEL. Install Vessel, or name it: VESSEL=/opt/vessel/bin/vessel $0" >&2
  exit 3
}

# The steps go to the reader as they are; of the failures only the first code is looked at.
document=$(mktemp "${TMPDIR:-/tmp}/vessel-boot.XXXXXX") || exit 1
trap 'rm -f "$document"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$VESSEL" check --boot --codes "$document" "$@"
code=$?
case $code in 0 | 2 | 130) exit "$code" ;; esac
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
  service_inactive) exit 21 ;;
  *) exit 1 ;;
esac
