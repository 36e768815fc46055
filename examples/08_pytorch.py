"""PyTorch: serve a TorchScript archive. It stores neither types nor shapes of its inputs, so they are declared."""

import numpy as np
import torch

import data
import inferd

split = data.breast_cancer()
mean, scale = split.train_x.mean(axis=0), split.train_x.std(axis=0)
x, y = torch.from_numpy((split.train_x - mean) / scale), torch.from_numpy(split.train_y)
network = torch.nn.Sequential(torch.nn.Linear(30, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2), torch.nn.Softmax(1))
optimizer = torch.optim.Adam(network.parameters(), 0.01)
for _ in range(200):
    optimizer.zero_grad()
    torch.nn.functional.nll_loss(network(x).clamp_min(1e-9).log(), y).backward()
    optimizer.step()
torch.jit.script(network.eval()).save("cancer.pt")

inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 30]}]
with inferd.Server("cancer.pt", inputs=inputs, slo="20ms") as server, inferd.Client(server.url) as client:
    rows = (split.test_x - mean) / scale
    found = client.infer("cancer", rows)["output"]
    with torch.no_grad():
        assert np.abs(found - network(torch.from_numpy(rows)).numpy()).max() < 1e-5
    print(f"accuracy {np.mean(found.argmax(axis=1) == split.test_y):.3f}")
