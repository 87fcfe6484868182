"""The front end of ONNX."""
