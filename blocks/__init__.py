"""The registered blocks: one idea a file, each a plain ``torch.nn.Module``."""
