"""Compare the processors' books with ours, resolve differences, and look up payments that workers gave up."""
