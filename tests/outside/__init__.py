"""What tests need that see inferd from outside: real server processes, models, clients, traffic."""
