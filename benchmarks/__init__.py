"""What proves or measures xpmlp and is no part of it: benchmarks, on a CPU and on a GPU."""
