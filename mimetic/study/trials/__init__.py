"""One trial, in whichever process trains it: what it gathers, learns, measures, draws and keeps."""
