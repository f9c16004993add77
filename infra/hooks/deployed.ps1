# A first start takes a while; what is wrong after that is told by /api/upstreams.
$ErrorActionPreference = 'Stop'
Invoke-RestMethod -Uri "$env:functionAppUrl/api/health" -MaximumRetryCount 20 -RetryIntervalSec 15 | Out-Null
Write-Host "The relay is alive at $env:functionAppUrl"
Write-Host "Who may send is in senders.toml (docs/senders.md): without it every sender is answered with 401"
