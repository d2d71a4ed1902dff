"""What this program writes: run folders, folders of label maps, pictures, and where each comes from."""
