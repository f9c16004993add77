#!/bin/sh
# A first start takes a while; what is wrong after that is told by /api/upstreams.
set -eu
curl --fail --silent --show-error --retry 20 --retry-delay 15 --retry-all-errors "$functionAppUrl/api/health"
echo
echo "The relay is alive at $functionAppUrl"
echo "Who may send is in senders.toml (docs/senders.md): without it every sender is answered with 401"
