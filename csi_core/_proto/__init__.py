"""CSI 1.13 stubs, generated from protos/csi.proto by `make protos`. Do not edit."""
