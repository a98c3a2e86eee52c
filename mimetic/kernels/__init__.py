"""Feature learning without backpropagation: RFM, ConvRFM, Deep ConvRFM and the fixed CNTK."""
