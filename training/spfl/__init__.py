"""SPFL (Mei et al., "Activating the Discriminability of Novel Classes for Few-shot Segmentation"):
training with latent semantics. Regions, their clusters and pseudo labels; then the joint training.
"""
