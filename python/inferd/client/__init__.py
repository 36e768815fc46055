"""Ask any server of the Open Inference Protocol: numpy in, numpy out, over HTTP or gRPC.

Knows nothing of inferd's own server: what is not in the protocol is not used.
"""
