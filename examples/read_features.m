% A feature file in MATLAB or Octave: how many rows and columns, their mean, the classes.
%
%   octave --eval "addpath examples; read_features('features.h5', 'fc7')"

function read_features(path, layer)
  if exist('OCTAVE_VERSION', 'builtin')
    file = load(path);
    x = file.features.(layer);
    status = file.rows.status;
    label = file.rows.label;
    classes = cellstr(file.classes);
  else
    x = h5read(path, ['/features/' layer]);
    status = h5read(path, '/rows/status');
    label = h5read(path, '/rows/label');
    classes = cellstr(h5read(path, '/classes'));
  end
  % HDF5 has the rows first and MATLAB last: (N, C, H, W) is W x H x C x N here.
  x = reshape(x, [], numel(status))';
  done = status(:) == 1;
  label = double(label(:)) + 1;  % labels count from 0
  fprintf('%d rows, %d columns, mean %.6f\n', sum(done), size(x, 2), mean(mean(x(done, :))));
  for k = 1:numel(classes)
    fprintf('%s: %d\n', classes{k}, sum(label(done) == k));
  end
end
