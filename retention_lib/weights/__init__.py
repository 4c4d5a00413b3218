"""Pretrained weights of the phantom-size networks, made by `python -m retention_lib pretrain`."""
