"""The pages, and the commands that write parts of them."""
