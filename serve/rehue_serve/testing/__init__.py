"""What tests, benchmarks and the demo run against: real servers on free ports.

- `servers`: `rehue serve` and other processes that answer over HTTP.
- `tritons`: a real Triton whose network sleeps instead of computing.
- `scripted`: a server that answers as a test's script says.
"""
