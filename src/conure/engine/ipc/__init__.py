"""Between processes: framed messages, shared memory for samples, and the transports that start or reach an engine."""
