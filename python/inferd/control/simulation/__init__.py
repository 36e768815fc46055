"""What a load would do to what is wanted: scenarios for the simulator and the arrivals in them."""
