#!/bin/sh
# Uses a key that this script never sees: derikey exec NAME -- curl.sh
# Needs curl 7.76 and derikey in PATH; derikey finds the agent in the environment.
set -eu

case "${DERIBIT_ENDPOINT:-$DERIBIT_NETWORK}" in
    http*) address=$DERIBIT_ENDPOINT ;;
    test) address=https://test.deribit.com/api/v2 ;;
    prod) address=https://www.deribit.com/api/v2 ;;
    *) echo "$DERIBIT_NETWORK has no address that curl could reach" >&2; exit 1 ;;
esac

# A token goes to curl through a pipe: as an argument, every user of the machine could read it in the
# list of processes. printf is the shell's own and no process. -q keeps ~/.curlrc out, and without -L
# no redirect gets the token.
header=$(derikey token "$DERIKEY_KEY" --scope account:read --format header)
printf '%s\n' "$header" |
    curl -q -sS --fail-with-body -H @- "$address/private/get_account_summary?currency=BTC"
echo

# A login that the agent signed, sent as it is; good for 60 seconds, and once. The answer holds tokens,
# so that no more of it is shown than whether it was one.
login=$(derikey sign auth "$DERIKEY_KEY" --scope account:read)
printf '%s\n' "$login" |
    curl -q -sS --fail-with-body -H 'Content-Type: application/json' -d @- "$address/public/auth" |
    grep -q '"access_token"'
echo "the login was accepted"
