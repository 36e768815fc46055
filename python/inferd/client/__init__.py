"""Client for any server of the Open Inference Protocol: numpy in, numpy out, over HTTP or gRPC.

Knows nothing of inferd's own server: uses only what the protocol defines.
"""
