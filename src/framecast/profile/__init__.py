"""What a model costs: parameters, MACs and FLOPs by part, latency, memory, energy."""
