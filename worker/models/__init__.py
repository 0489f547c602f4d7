"""Networks: the DenseNet, and names to builders."""
