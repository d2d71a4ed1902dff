"""Networks: timm backbone, readout and DPT decoder."""
