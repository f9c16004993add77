"""For senders and operators: deliveries, replay, activity, audit, health, housekeeping."""
