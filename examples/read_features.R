# A feature file in R: how many rows and columns, their mean, the classes.
#
#   Rscript examples/read_features.R features.h5 fc7

library(rhdf5)

arguments <- commandArgs(trailingOnly = TRUE)
path <- arguments[1]
x <- h5read(path, paste0("/features/", arguments[2]))
status <- h5read(path, "/rows/status")
label <- h5read(path, "/rows/label") + 1  # labels count from 0
classes <- h5read(path, "/classes")

# HDF5 has the rows first and R last: (N, C, H, W) is W x H x C x N here.
x <- t(matrix(x, ncol = length(status)))
done <- as.vector(status) == 1
cat(sprintf("%d rows, %d columns, mean %.6f\n", sum(done), ncol(x), mean(x[done, ])))
for (k in seq_along(classes)) {
  cat(sprintf("%s: %d\n", classes[k], sum(label[done] == k)))
}
