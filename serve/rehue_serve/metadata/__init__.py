"""What a photograph says of itself besides its pixels: read, made true of the answer, written."""
