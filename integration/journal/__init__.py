"""The durable record of deliveries, results and API activity; and the write guard."""
