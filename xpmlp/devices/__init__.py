"""Where the math runs: namespaces, devices, and what makes each fast."""
