"""What a packet's way through the rules costs: the model, its calibration, and what follows for a host's traffic."""
