"""Load tests and benchmarks: `make loadtest`, `openloop`, `peers`, `capacity` and `bench`."""
