"""What keeps a worker process going and shows how it goes: upkeep, heartbeat, metrics."""
