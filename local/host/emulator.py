"""Build the connection string of Azurite. Pure."""

from __future__ import annotations

# https://learn.microsoft.com/azure/storage/common/storage-use-azurite -- the well-known account,
# the same on every machine, so no secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def build_connection_string(blob: int, queue: int, table: int) -> str:
    ports = {"Blob": blob, "Queue": queue, "Table": table}
    points = "".join(f"{n}Endpoint=http://127.0.0.1:{p}/{ACCOUNT};" for n, p in ports.items())
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{points}"
