"""The durable record of deliveries and outcomes: checkpoint, status and log in one."""
