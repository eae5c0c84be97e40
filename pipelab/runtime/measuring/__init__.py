"""What a run is measured by: costs, what devices hold, and the unsplit model that proves its gradients."""
