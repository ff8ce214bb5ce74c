# shellcheck shell=sh
# The settings of the services and the rights of the operator, for the shell that reads this file: what is set already
# wins, then VESSEL_ENV_FILE (default /etc/vessel/vessel.env), then key and Redis of /etc/vessel/credentials.

ENV_FILE=${VESSEL_ENV_FILE:-/etc/vessel/vessel.env}
CREDENTIALS=/etc/vessel/credentials
# Ours, and no setting of Vessel's: it reports names that it does not know.
unset VESSEL_ENV_FILE

if [ -r "$ENV_FILE" ]; then
  # Lines of NAME=value as systemd reads them; nothing in them is run.
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

if [ -z "${VESSEL_REDIS_URL:-}" ] && [ -d $CREDENTIALS ]; then
  [ -x $CREDENTIALS ] || {
    echo "❌ Only root reads the passwords in $CREDENTIALS. Nothing was done. Run: sudo $0 $*" >&2
    exit 3
  }
  export VESSEL_REDIS_URL=file://$CREDENTIALS/redis_url_operator
fi
if [ -z "${GROQ_API_KEY:-}${GROQ_API_KEY_FILE:-}" ] && [ -r $CREDENTIALS/groq_api_key ]; then
  export GROQ_API_KEY_FILE=$CREDENTIALS/groq_api_key
fi
