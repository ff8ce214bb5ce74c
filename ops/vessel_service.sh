#!/bin/sh
# Run a command of Vessel beside its services, with their settings and the rights of the operator; ops/install.sh links
# it as /usr/local/bin/vessel-service: sudo vessel-service doctor
set -u

# shellcheck source=/dev/null
. /opt/vessel/ops/operator_env.sh
exec /opt/vessel/venv/bin/vessel "$@"
