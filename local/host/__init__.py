"""Run function_app.py on a laptop without Azure Functions Core Tools: HTTP, queues and timers."""
