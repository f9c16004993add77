"""For senders and operators: the status of deliveries, replay, activity, audit, health, housekeeping."""
