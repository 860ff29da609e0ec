"""Side-by-side benchmarks: each runs rdev and its peer interleaved, in one run, on one machine."""
