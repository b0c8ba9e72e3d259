"""The math, on any array namespace. Nothing here knows a device."""
