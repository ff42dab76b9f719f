"""What the decision benchmark is made of: pairs of data sets, what each way reaches on them, who would choose what."""
