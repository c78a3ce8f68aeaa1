"""An asyncio loop for synchronous code, and threads for calls with a time limit."""
