#!/bin/sh
# Checks the Bicep files by the program that BICEP_CHECK names and by the compiler, and says which of them ran.
set -eu
cd "$(dirname "$0")"

if [ -n "${BICEP_CHECK:-}" ]; then
  "$BICEP_CHECK" main.bicep ./*.bicepparam
  echo "checked by BICEP_CHECK"
else
  echo "not checked by BICEP_CHECK: it names no program"
fi

if command -v bicep >/dev/null; then
  bicep build main.bicep --stdout >/dev/null
  bicep lint main.bicep
  for parameters in ./*.bicepparam; do
    UNIQUE_VALUE=check DATAVERSE_URL=https://check.crm.dynamics.com ALERT_EMAIL=check@example.org \
      bicep build-params "$parameters" --stdout >/dev/null
  done
  echo "checked by $(bicep --version)"
else
  echo "not checked by the compiler: no bicep on the PATH"
fi
